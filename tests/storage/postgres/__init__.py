"""The PostgreSQL engine by itself: what only it has beside the contract."""
