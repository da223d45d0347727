"""The served application: its import by name, its routes and its lifespan."""
