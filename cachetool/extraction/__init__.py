"""From images to a cache: what is asked for (`request`), the loop that stores states (`extract`), its storage error."""

from cachetool.extraction.extract import Extracted, extract, extract_again
from cachetool.extraction.request import Request, prepare

__all__ = ["Extracted", "Request", "extract", "extract_again", "prepare"]
