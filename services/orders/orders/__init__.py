"""orders: takes orders and keeps them, in SQLite on a volume."""
