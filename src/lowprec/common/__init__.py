"""Names and near misses, random keys, forks, files written whole, where results go, rows."""
