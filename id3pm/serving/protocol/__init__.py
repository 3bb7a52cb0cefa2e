"""The wire protocol: tensor names, options, limits, statuses."""
