"""Labels: where they are wrong, which ones to make next, and files for the tools that make them.

A label is suspected where a network is sure of another class. What is suspected is looked at by a
person, so that all ends in a ranked list.
"""

from doubtmap.labelling.denied import DenialRule, Denied, denied_parts
from doubtmap.labelling.quality import label_probability, soft_min

__all__ = ["DenialRule", "Denied", "denied_parts", "label_probability", "soft_min"]
