"""Streets that are drawn, not photographed: the data that doubtmap ships, exact to the pixel."""
