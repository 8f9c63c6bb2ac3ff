module example.com/fix.ture/app

go 1.18
