module lossd

go 1.23
