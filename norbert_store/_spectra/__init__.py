"""Numbers only: levels, the short-time Fourier transform, bins of frequency, Bark bands."""
