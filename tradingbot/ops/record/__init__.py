"""What was recorded, run through the engine again, compared, explained, examined and mended."""
