# SPDX-License-Identifier: MIT
"""Validation of many blobs: a shard names files, workers judge them one by one, results can be resumed."""
