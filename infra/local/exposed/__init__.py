"""Exposed services: long-running processes behind `/system/services/<name>/exposed`."""
