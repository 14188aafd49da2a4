"""The engine that asks language models: any address that speaks the OpenAI API."""
