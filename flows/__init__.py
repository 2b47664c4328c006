"""What starts work: the command line, the order of the steps, and the Prefect flows around them."""
