"""Films and streams: an overlay film, and a table with a row for each frame."""

from doubtmap.films.frames import is_film
from doubtmap.films.scoring import write_films

__all__ = ["is_film", "write_films"]
