"""The torch core. Importing it loads torch; nothing outside `core/` does so at module level."""
