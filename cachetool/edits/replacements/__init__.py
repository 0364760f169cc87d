"""The replacements, one file each: a new file here is all that a new replacement takes."""
