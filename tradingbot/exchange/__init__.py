"""Floor 3: exchanges. The one folder that names ccxt."""
