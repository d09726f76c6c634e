"""labkit: Kubernetes labs as notebooks, on a real cluster that needs neither Docker nor root."""
