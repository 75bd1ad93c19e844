"""From passes to answers."""
