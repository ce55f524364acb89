"""Federated learning: aggregation rules, client algorithms, and the executors that run them."""
