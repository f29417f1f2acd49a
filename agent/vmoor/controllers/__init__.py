"""One module per concern: reads cells, decides with the model, acts by ports, sets its cell."""
