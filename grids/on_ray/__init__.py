"""A grid's cells as tasks of Ray: who starts them, what runs them on a node, and what goes to and fro."""
