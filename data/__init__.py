"""Files shipped with mlsky: registry, weights, tables."""
