"""Application services: https://spec.matrix.org/v1.19/application-service-api/"""
