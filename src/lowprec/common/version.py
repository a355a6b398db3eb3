"""The version of this lowprec."""

VERSION = "0.1.0"
