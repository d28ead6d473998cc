"""The local stack: a private PostgreSQL, a private RabbitMQ and both workers, for trials and for tests."""
