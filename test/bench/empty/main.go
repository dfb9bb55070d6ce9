// Command empty does nothing. It measures the cost of the Go runtime.
package main

func main() {}
