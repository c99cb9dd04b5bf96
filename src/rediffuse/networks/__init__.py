"""Plain building blocks; they know neither levels of a schedule nor data."""
