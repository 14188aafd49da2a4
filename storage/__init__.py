"""PostgreSQL: pool, migrations and one repository module per subject. All SQL lives here."""
