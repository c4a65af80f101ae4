"""A Flower app: logistic regression over breast-cancer tables that stay with their owners."""
