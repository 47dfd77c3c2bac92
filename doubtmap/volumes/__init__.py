"""Volumes slice by slice, for networks of images."""

from doubtmap.volumes.nifti import is_volume, write_volumes

__all__ = ["is_volume", "write_volumes"]
