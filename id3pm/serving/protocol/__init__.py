"""The wire: tensor names, options, statuses."""
