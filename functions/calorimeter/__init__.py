"""The calorimeter twin: fast simulation of electromagnetic showers, validated against Geant4."""
