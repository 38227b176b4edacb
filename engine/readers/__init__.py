"""What dataset scripts call to read their files."""
