"""From images to a cache: what is asked for (`request`), the loop that stores states (`loop`), its storage error."""

from cachetool.extraction.extract import Extracted, check_options, compute_here, extract, extract_again
from cachetool.extraction.recorded import open_images, request_of
from cachetool.extraction.request import Request, prepare

__all__ = [
    "Extracted",
    "Request",
    "check_options",
    "compute_here",
    "extract",
    "extract_again",
    "open_images",
    "prepare",
    "request_of",
]
