"""Names and near misses, random keys, forks, files written whole, recorded rows."""
