"""cowpen: find, reproduce and bisect fork/COW/page-pinning races in real Linux kernels."""

__version__ = "0.1.0"
