"""What grid.py prints before it begins: what there is to do, what is missing, how long it takes."""
