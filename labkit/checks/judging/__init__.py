"""Judgements of exercises that need no cluster: rules, numbers, manifests."""
