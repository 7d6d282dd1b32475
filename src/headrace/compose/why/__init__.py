"""`headrace why`: a decision of the gateway or the scaler, laid out."""
