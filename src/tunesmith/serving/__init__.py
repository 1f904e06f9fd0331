"""Answering over HTTP, as OpenAI's API does, and keeping what people say of the answers."""
