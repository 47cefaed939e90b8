"""Classification images of any size: kept as JPEG in a store, decoded a crop at a time."""
