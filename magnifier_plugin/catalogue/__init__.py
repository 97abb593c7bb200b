"""Data sets on disk: names, layouts, inspection."""
