"""What /sync answers with: from memory for those who keep up, from PostgreSQL for those who come back."""
