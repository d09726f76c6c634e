"""frontend: the shop's page, and the JSON gateway to the services behind it."""
