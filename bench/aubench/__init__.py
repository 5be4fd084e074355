# SPDX-License-Identifier: Apache-2.0
"""What bench.py and soak.py are made of."""
