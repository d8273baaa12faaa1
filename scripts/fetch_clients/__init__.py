# SPDX-License-Identifier: MIT
"""Fetching real arm64 programs that use KVM, from Debian's packages and from PyPI.

``PYTHONPATH=scripts python -m fetch_clients [CLIENT...]`` sets up each of them in a folder of its own below
``build/clients``, where ``tests/clients`` looks for them. Nothing is installed on the system. What is there already
stays as it is. ``make clients`` fetches all and runs them.
"""
