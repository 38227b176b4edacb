"""What grid.py is made of: cells, what is known of them, how long they take, the processes that run them, the view."""
