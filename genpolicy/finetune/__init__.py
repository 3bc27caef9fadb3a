"""Reinforcement-learning fine-tuning of generative policies."""
