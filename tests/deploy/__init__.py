"""`make compose-local`: docker-compose.yml run as local processes, and a night through it."""
