"""Records -> what a report says, and the report's files."""
